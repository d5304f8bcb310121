// Scores recorded requests with an exported model; needs LibTorch alone.
//
//   serve MODEL REQUESTS OUT [DELTA ...]
//
// MODEL: model.pt of an export folder. REQUESTS: a list of requests, name -> tensor, as torch.save writes it. OUT gets for every
// request its probabilities, task -> tensor, or the error that the model answered with, for torch.load. Deltas are applied first,
// in their order.

#include <torch/script.h>
#include <torch/torch.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

c10::IValue read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return torch::pickle_load(bytes);
}

void write(const std::string& path, const c10::IValue& value) {
  const auto bytes = torch::pickle_save(value);
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file) throw std::runtime_error(path + ": cannot be written");
}

// What torch.save wrote as a dict of any values, as the typed one that the model takes.
c10::Dict<std::string, at::Tensor> tensors(const c10::IValue& value) {
  c10::Dict<std::string, at::Tensor> found;
  for (const auto& entry : value.toGenericDict()) found.insert(entry.key().toStringRef(), entry.value().toTensor());
  return found;
}

// The line of a TorchScript error that says what is wrong: "builtins.ValueError: input 'x' is missing".
std::string reason(const std::exception& error) {
  const std::string text = error.what();
  const std::string mark = "builtins.ValueError: ";
  const auto at = text.rfind(mark);
  if (at == std::string::npos) return text;
  const auto start = at + mark.size();
  return text.substr(start, text.find('\n', start) - start);
}

c10::IValue score(torch::jit::Module& model, const c10::IValue& request) {
  try {
    return model.forward({tensors(request)});
  } catch (const std::exception& error) {
    return reason(error);
  }
}

int serve(const std::vector<std::string>& arguments) {
  auto model = torch::jit::load(arguments.at(0), at::kCPU);
  model.eval();
  for (size_t i = 3; i < arguments.size(); ++i) model.get_method("update")({tensors(read(arguments[i]))});
  c10::impl::GenericList answers(c10::AnyType::get());
  const c10::InferenceMode guard;
  const c10::IValue requests = read(arguments.at(1));
  for (const c10::IValue& request : requests.toListRef()) answers.push_back(score(model, request));
  write(arguments.at(2), answers);
  std::cout << answers.size() << " requests\n";
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
