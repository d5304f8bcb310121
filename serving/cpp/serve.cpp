// Scores recorded requests with an exported model; needs LibTorch alone.
//
//   serve MODEL REQUESTS OUT [DELTA ...]
//
// MODEL: model.pt of an export folder; it and deltas are held against the digests in the sha256sums.txt beside them. REQUESTS: a list of requests, name -> tensor, as torch.save writes it. OUT gets a tuple
// with an answer to every request, for torch.load: what the heads give as pairs of task and tensor, or the line of the refusal. Deltas
// are applied first, in their order.

#include <torch/script.h>
#include <torch/torch.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "sha256.hpp"

namespace {

// An error in one line: of what TorchScript raised the last ("builtins.ValueError: input 'x' is missing"), else the first.
std::string reason(const std::exception& error) {
  const auto* own = dynamic_cast<const c10::Error*>(&error);
  const std::string text = own ? own->what_without_backtrace() : error.what();
  const std::string mark = "builtins.ValueError: ", traced = "The following operation failed";
  const auto raised = text.rfind(mark);
  if (raised != std::string::npos) {
    const auto start = raised + mark.size();
    return text.substr(start, text.find('\n', start) - start);
  }
  if (text.rfind(traced, 0) != 0) return text.substr(0, std::min(text.find('\n'), text.find(". ")));
  const auto end = text.find_last_not_of('\n');
  const auto start = text.rfind('\n', end) + 1;
  return text.substr(start, end - start + 1);
}

c10::IValue read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) throw std::runtime_error(path + ": cannot be read");
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  try {
    return torch::pickle_load(bytes);
  } catch (const std::exception& error) {
    throw std::runtime_error(path + ": is no file of torch.save, or a damaged one (" + reason(error) + ")");
  }
}

// Holds a file against its digest, before anything of it is loaded.
void verify(const std::string& path) {
  const std::filesystem::path whole(path);
  if (!std::filesystem::exists(whole)) throw std::runtime_error(path + ": cannot be read");
  std::ifstream list(whole.parent_path() / "sha256sums.txt");
  if (!list) throw std::runtime_error(path + ": no sha256sums.txt beside it, which an export folder has");
  const auto name = "  " + whole.filename().string();
  for (std::string line; std::getline(list, line);) {
    if (line.size() <= 64 || line.substr(64) != name) continue;
    if (line.substr(0, 64) == Sha256::of(path)) return;
    throw std::runtime_error(path + ": is damaged, or of another export, by the sha256sums.txt beside it");
  }
  throw std::runtime_error(path + ": is not of the export that it lies in, by the sha256sums.txt beside it");
}

torch::jit::Module load(const std::string& path) {
  verify(path);
  try {
    auto model = torch::jit::load(path, at::kCPU);
    const auto forward = model.find_method("forward");
    const auto given = forward ? forward->function().getSchema().returns().at(0).type()->kind() : c10::TypeKind::NoneType;
    if (given != c10::TypeKind::DictType) throw std::runtime_error("it gives no answers by task");
    model.eval();
    return model;
  } catch (const std::exception& error) {
    throw std::runtime_error(path + ": is no model.pt of an export, or a damaged one (" + reason(error) + ")");
  }
}

// What torch.save wrote as a dict of any values, as the typed one that the model takes.
c10::Dict<std::string, at::Tensor> tensors(const c10::IValue& value) {
  if (!value.isGenericDict()) throw std::runtime_error("is no dict of tensors");
  c10::Dict<std::string, at::Tensor> found;
  for (const auto& entry : value.toGenericDict()) {
    if (!entry.key().isString()) throw std::runtime_error("has a key that is no string");
    const auto& name = entry.key().toStringRef();
    if (!entry.value().isTensor()) throw std::runtime_error("input '" + name + "' is no tensor");
    found.insert(name, entry.value().toTensor());
  }
  return found;
}

void update(torch::jit::Module& model, const std::string& path) {
  verify(path);
  const auto method = model.find_method("update");
  if (!method) throw std::runtime_error(path + ": the model takes no deltas");
  const auto delta = read(path);
  try {
    (*method)({tensors(delta)});
  } catch (const std::exception& error) {
    throw std::runtime_error(path + ": " + reason(error));
  }
}

// Tuples, of which torch.load reads what it would refuse as a TorchScript dict.
c10::IValue score(torch::jit::Module& model, const c10::IValue& request) {
  c10::IValue given;
  try {
    given = model.forward({tensors(request)});
  } catch (const std::exception& error) {
    return reason(error);
  }
  std::vector<c10::IValue> pairs;
  for (const auto& entry : given.toGenericDict()) {
    pairs.emplace_back(c10::ivalue::Tuple::create({entry.key(), entry.value()}));
  }
  return c10::ivalue::Tuple::create(std::move(pairs));
}

int serve(const std::vector<std::string>& arguments) {
  const auto& path = arguments.at(2);
  auto model = load(arguments.at(0));
  for (size_t i = 3; i < arguments.size(); ++i) update(model, arguments[i]);
  const c10::IValue requests = read(arguments.at(1));
  if (!requests.isList()) throw std::runtime_error(arguments.at(1) + ": holds no list of requests");
  const auto partial = path + ".partial";
  std::ofstream file(partial, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) throw std::runtime_error(path + ": cannot be written");
  std::vector<c10::IValue> answers;
  const c10::InferenceMode guard;
  for (const c10::IValue& request : requests.toListRef()) answers.push_back(score(model, request));
  const auto count = answers.size();
  const auto bytes = torch::pickle_save(c10::ivalue::Tuple::create(std::move(answers)));
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) throw std::runtime_error(path + ": cannot be written");
  std::filesystem::rename(partial, path);
  std::cout << count << " requests\n";
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) {
    std::cerr << "serve MODEL REQUESTS OUT [DELTA ...]\n";
    return 2;
  }
  at::set_num_threads(1);
  try {
    return serve({arguments + 1, arguments + count});
  } catch (const std::exception& error) {
    std::cerr << "serve: " << reason(error) << "\n";
    return 1;
  }
}
