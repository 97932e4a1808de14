// The host side of the CUDA backend on the emulator: what it says when there is no device, that its
// count of memory is exact, and that a failure anywhere ends in a status and leaks nothing.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <functional>

#include "kernels/core/status.h"
#include "tests/kernels/kernel_support.h"

namespace suite {
namespace {

namespace emulator = dasan::cuda_emulator;

// Sets the machine up for one test and puts it back.
struct Machine {
  ~Machine() {
    emulator::set_driver(cudaSuccess);
    emulator::set_device_count(1);
    emulator::set_compute_capability(9, 0);
    emulator::set_memory_bytes(size_t{4} << 30);
    emulator::fail_allocation(0);
    emulator::fail_launch(0);
    emulator::reset_device();
    cudaSetDevice(0);
  }
};

dasan::Status status_of(const std::function<void()>& body, std::string* message = nullptr) {
  try {
    body();
  } catch (const dasan::Error& e) {
    if (message != nullptr) *message = e.message();
    return e.status();
  }
  return dasan::Status::kOk;
}

TEST_CASE(
    "no driver, an old one, no device, a wrong one, one that is too old: a status that says so") {
  Machine machine;
  const auto expect = [](int32_t ordinal, dasan::Status status, const char* words) {
    std::string message;
    CHECK(status_of([&] { make_cuda_backend(ordinal); }, &message) == status);
    CHECK_MESSAGE(message.find(words) != std::string::npos, message);
    CHECK(message.find("cuda:" + std::to_string(ordinal)) == 0);
  };
  expect(1, dasan::Status::kNotFound, "there are 1 CUDA devices");
  expect(-1, dasan::Status::kNotFound, "there are 1");
  emulator::set_compute_capability(7, 5);
  expect(0, dasan::Status::kUnsupported, "compute capability 7.5, expected at least 8.0");
  emulator::set_compute_capability(9, 0);
  emulator::set_device_count(0);
  CHECK(cuda_devices().empty());
  expect(0, dasan::Status::kNotFound, "no CUDA device");
  emulator::set_device_count(1);
  emulator::set_driver(cudaErrorInsufficientDriver);
  CHECK(cuda_devices().empty());
  expect(0, dasan::Status::kNotFound, "no NVIDIA driver is installed");
  emulator::set_driver(cudaSuccess);
  REQUIRE(cuda_devices().size() == 1);
  CHECK(cuda_devices().front().name == "emulated device");
  CHECK(cuda_devices().front().memory_total == size_t{4} << 30);
  CHECK(make_cuda_backend(0)->name() == "cuda:0:sm_90");
}

struct Everything {
  std::unique_ptr<Backend> backend = make_cuda_backend(0);
  std::unique_ptr<Buffer> buffer, host, copied;
  std::unique_ptr<PackedWeight> table;
  std::unique_ptr<Stream> stream;

  Everything() {
    buffer = backend->allocate(100000);
    host = backend->allocate_host(5000);
    const std::vector<std::byte> bytes(777);
    copied = backend->allocate_copy(bytes);
    Random random(1);
    table =
        backend->pack_embedding(make_weight(DType::kQ4_0, 5, 64, Regime::kNormal, random).view());
    stream = backend->new_stream(limits(1));
  }
  size_t bytes() const {
    return buffer->size_bytes() + copied->size_bytes() + table->size_bytes() +
           stream->scratch_bytes();
  }
};

TEST_CASE("device memory is counted to the byte and given back") {
  Machine machine;
  REQUIRE(emulator::allocated_bytes(0) == 0);
  {
    Everything all;
    CHECK(emulator::allocated_bytes(0) == all.bytes());
    CHECK(all.stream->scratch_bytes() == all.backend->stream_bytes(limits(1)));
    CHECK(all.backend->available_bytes() == (size_t{4} << 30) - all.bytes());
    std::vector<float> zeros(25000, 1.0f);
    all.backend->copy_to_host(*all.stream, zeros.data(), all.buffer->data(), 100000);
    all.backend->synchronize(*all.stream);
    for (const float v : zeros) REQUIRE(v == 0.0f);
  }
  CHECK(emulator::allocated_bytes(0) == 0);
}

TEST_CASE("any allocation may fail: out of memory, nothing leaked") {
  Machine machine;
  int failed = 0;
  for (int64_t n = 1;; n++) {
    REQUIRE(n < 100);
    emulator::fail_allocation(n);
    const dasan::Status status = status_of([] { Everything all; });
    emulator::fail_allocation(0);
    CHECK(emulator::allocated_bytes(0) == 0);
    if (status == dasan::Status::kOk) break;
    CHECK(status == dasan::Status::kOutOfMemory);
    failed++;
  }
  CHECK(failed >= 6);
  emulator::set_memory_bytes(100000);
  std::string message;
  CHECK(status_of([] { make_cuda_backend(0)->allocate(200000); }, &message) ==
        dasan::Status::kOutOfMemory);
  CHECK(message.find("200000 bytes of device memory") != std::string::npos);
  CHECK(message.find("100000 of 100000 are free") != std::string::npos);
}

void norm_once(Backend& backend, Stream& stream, float* data) {
  static const std::vector<float> weight(8, 1.0f);
  backend.rms_norm(stream,
                   {const_f32_view(data, 1, 8), weight.data(), 1e-5f, f32_view(data, 1, 8), {}});
  backend.synchronize(stream);
}

TEST_CASE("a fault of the device is a status of that step, and of every later one") {
  Machine machine;
  const auto backend = make_cuda_backend(0);
  const auto stream = backend->new_stream(limits(1));
  std::vector<float> data(8, 2.0f);
  norm_once(*backend, *stream, data.data());
  CHECK(data[0] == doctest::Approx(1.0f));
  emulator::fail_launch(1);
  std::string message;
  CHECK(status_of([&] { norm_once(*backend, *stream, data.data()); }, &message) ==
        dasan::Status::kDevice);
  CHECK(message.find("cuda:0") == 0);
  CHECK(status_of([&] { norm_once(*backend, *stream, data.data()); }) == dasan::Status::kDevice);
}

TEST_CASE("the caller's current device stays what it was") {
  Machine machine;
  emulator::set_device_count(3);
  REQUIRE(cudaSetDevice(2) == cudaSuccess);
  const auto current = [] {
    int device = -1;
    cudaGetDevice(&device);
    return device;
  };
  {
    const auto one = make_cuda_backend(1), zero = make_cuda_backend(0);
    CHECK(current() == 2);
    const auto buffer = one->allocate(1000);
    CHECK(emulator::allocated_bytes(1) == 1000);
    const auto stream = one->new_stream(limits(1));
    CHECK(emulator::allocated_bytes(1) == 1000 + stream->scratch_bytes());
    CHECK(emulator::allocated_bytes(0) + emulator::allocated_bytes(2) == 0);
    std::vector<float> data(8, 2.0f);
    norm_once(*one, *stream, data.data());
    CHECK(current() == 2);
  }
  CHECK(current() == 2);
  CHECK(emulator::allocated_bytes(1) == 0);
}

TEST_CASE("a host array is copied once per step, and again after it") {
  const auto backend = make_cuda_backend(0);
  const auto stream = backend->new_stream(limits(1));
  const std::vector<float> x = {1, 2, 3, 4};
  std::vector<int32_t> rows = {3, 0};
  std::vector<float> y(2), z(2);
  const auto gather = [&](std::vector<float>& to) {
    backend->gather_rows(*stream,
                         {const_f32_view(x.data(), 4, 1), rows, f32_view(to.data(), 2, 1)});
  };
  gather(y);
  rows = {1, 1};  // before the step ran: the copy was taken when the operation was enqueued
  gather(z);
  backend->synchronize(*stream);
  CHECK(y == std::vector<float>{4, 1});
  CHECK(z == std::vector<float>{4, 1});
  gather(z);
  backend->synchronize(*stream);
  CHECK(z == std::vector<float>{2, 2});
}

TEST_CASE("what has no kernel is refused by name") {
  const auto backend = make_cuda_backend(0);
  std::string message;
  Random random(2);
  const Weight w = make_weight(DType::kQ2_K, 4, 256, Regime::kNormal, random);
  if (!backend->supports({Op::kMatmul, DType::kQ2_K})) {
    CHECK(status_of([&] { backend->pack(w.view()); }, &message) == dasan::Status::kUnsupported);
    CHECK(message.find("matmul Q2_K") != std::string::npos);
  }
  CHECK_FALSE(backend->supports({Op::kAttention, DType::kF32, DType::kF16, 512}));
  CHECK(backend->kernel_name({Op::kAttention, DType::kF32, DType::kF16, 128}) == "mma.sync");
  CHECK(backend->kernel_name({Op::kAttention, DType::kF32, DType::kF32, 128}) == "plain");
}

}  // namespace
}  // namespace suite
