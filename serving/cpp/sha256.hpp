// SHA-256 (FIPS 180-4) of a file, for LibTorch has none.

#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>

class Sha256 {
 public:
  // The digest of a file in hexadecimal. Throws std::runtime_error if it cannot be read.
  static std::string of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    Sha256 sha;
    std::array<char, 1 << 16> buffer;
    uint64_t size = 0;
    while (file.read(buffer.data(), buffer.size()) || file.gcount()) {
      size += static_cast<uint64_t>(file.gcount());
      for (std::streamsize i = 0; i < file.gcount(); ++i) sha.add(static_cast<uint8_t>(buffer[i]));
    }
    if (!file.eof()) throw std::runtime_error(path + ": cannot be read");
    sha.add(0x80);
    while (sha.count_ != 56) sha.add(0);
    for (int shift = 56; shift >= 0; shift -= 8) sha.add(static_cast<uint8_t>(size * 8 >> shift));
    std::string hex;
    for (const uint32_t word : sha.state_) {
      for (int shift = 28; shift >= 0; shift -= 4) hex += "0123456789abcdef"[word >> shift & 15];
    }
    return hex;
  }

 private:
  // The first 32 bits of the fractional parts of the square roots of 8 primes, and of the cube roots of 64.
  static uint32_t fraction(long double root) { return static_cast<uint32_t>((root - std::floor(root)) * 4294967296.0L); }

  struct Constants {
    std::array<uint32_t, 8> start{};
    std::array<uint32_t, 64> round{};
    Constants() {
      for (uint32_t prime = 2, n = 0; n < 64; ++prime) {
        bool divides = false;
        for (uint32_t d = 2; d * d <= prime; ++d) divides |= prime % d == 0;
        if (divides) continue;
        if (n < 8) start[n] = fraction(std::sqrt(static_cast<long double>(prime)));
        round[n++] = fraction(std::cbrt(static_cast<long double>(prime)));
      }
    }
  };

  static const Constants& constants() {
    static const Constants made;
    return made;
  }

  void add(uint8_t byte) {
    block_[count_ / 4] = block_[count_ / 4] << 8 | byte;
    if (++count_ == 64) mix();
  }

  void mix() {
    std::array<uint32_t, 64> w;
    for (int i = 0; i < 64; ++i) {
      if (i < 16) {
        w[i] = block_[i];
        continue;
      }
      const uint32_t a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ a >> 3) + w[i - 7] + (std::rotr(b, 17) ^ std::rotr(b, 19) ^ b >> 10);
    }
    auto s = state_;
    for (int i = 0; i < 64; ++i) {
      const uint32_t high = std::rotr(s[4], 6) ^ std::rotr(s[4], 11) ^ std::rotr(s[4], 25);
      const uint32_t one = s[7] + high + ((s[4] & s[5]) ^ (~s[4] & s[6])) + constants().round[i] + w[i];
      const uint32_t low = std::rotr(s[0], 2) ^ std::rotr(s[0], 13) ^ std::rotr(s[0], 22);
      const uint32_t two = low + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
      s = {one + two, s[0], s[1], s[2], s[3] + one, s[4], s[5], s[6]};
    }
    for (int i = 0; i < 8; ++i) state_[i] += s[i];
    count_ = 0;
  }

  std::array<uint32_t, 8> state_ = constants().start;
  std::array<uint32_t, 16> block_{};
  unsigned count_ = 0;
};
