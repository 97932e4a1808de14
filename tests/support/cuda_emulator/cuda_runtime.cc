#include "tests/support/cuda_emulator/cuda_runtime.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

using Queue = std::vector<std::function<cudaError_t()>>;

struct CUstream_st {
  Queue queue;
  bool capturing = false;
};
struct CUgraph_st {
  Queue queue;
};
struct CUgraphExec_st {
  Queue queue;
};

namespace dasan::cuda_emulator {
namespace {

constexpr size_t kMemoryAlign = 256;
constexpr size_t kDefaultShared = 48 << 10, kOptInShared = 227 << 10;

struct Allocation {
  size_t size;
  int device;  // -1: pinned host memory
};

struct Machine {
  std::recursive_mutex mutex;
  cudaError_t driver = cudaSuccess, sticky = cudaSuccess, last = cudaSuccess;
  int n_devices = 1, major = 9, minor = 0;
  size_t total = size_t{4} << 30;
  std::map<const void*, Allocation> memory;
  std::map<const void*, int> max_shared;
  std::map<int, size_t> used;
  std::string report;
  int64_t n_allocations = 0, fail_at = 0, n_launches = 0, fail_launch_at = 0;
};
Machine& machine() {
  static Machine m;
  return m;
}
thread_local int current_device = 0;

cudaError_t note(cudaError_t error) {
  if (error != cudaSuccess) machine().last = error;
  return error;
}
// What stands against any call at all.
cudaError_t state() {
  Machine& m = machine();
  if (m.driver != cudaSuccess) return note(m.driver);
  return note(m.sticky);
}

cudaError_t allocate(void** p, size_t size, int device) {
  Machine& m = machine();
  const std::lock_guard lock(m.mutex);
  *p = nullptr;
  if (const cudaError_t e = state(); e != cudaSuccess) return e;
  m.n_allocations++;
  if (m.fail_at != 0 && m.n_allocations == m.fail_at) return note(cudaErrorMemoryAllocation);
  if (device >= 0 && m.used[device] + size > m.total) return note(cudaErrorMemoryAllocation);
  // Address sanitizer sees the end of every allocation.
  void* memory = ::operator new (size, std::align_val_t{kMemoryAlign}, std::nothrow);
  if (memory == nullptr) return note(cudaErrorMemoryAllocation);
  std::memset(memory, 0xCD, size);  // nobody may rely on fresh memory
  m.memory[memory] = {size, device};
  if (device >= 0) m.used[device] += size;
  *p = memory;
  return cudaSuccess;
}

cudaError_t release(void* p, bool host) {
  Machine& m = machine();
  const std::lock_guard lock(m.mutex);
  if (p == nullptr) return cudaSuccess;
  const auto found = m.memory.find(p);
  if (found == m.memory.end() || (found->second.device < 0) != host)
    return note(cudaErrorInvalidValue);
  if (!host) m.used[found->second.device] -= found->second.size;
  m.memory.erase(found);
  ::operator delete (p, std::align_val_t{kMemoryAlign});
  return cudaSuccess;
}

// Whether the address was given out by this runtime: the others are pageable host memory.
bool known(const void* p) {
  Machine& m = machine();
  const auto after = m.memory.upper_bound(p);
  if (after == m.memory.begin()) return false;
  const auto& [begin, allocation] = *std::prev(after);
  return static_cast<const std::byte*>(p) < static_cast<const std::byte*>(begin) + allocation.size;
}

cudaError_t run(Queue& queue) {
  Machine& m = machine();
  for (auto& work : queue) {
    if (m.sticky != cudaSuccess) break;
    if (const cudaError_t e = work(); e != cudaSuccess) m.sticky = e;
  }
  queue.clear();
  return state();
}

}  // namespace

cudaError_t enqueue_launch(const cudaLaunchConfig_t& config, const void* kernel,
                           std::function<void()> body) {
  Machine& m = machine();
  const std::lock_guard lock(m.mutex);
  if (const cudaError_t e = state(); e != cudaSuccess) return e;
  const dim3 g = config.gridDim, b = config.blockDim;
  const auto limit = m.max_shared.find(kernel);
  const size_t shared_limit =
      limit == m.max_shared.end() ? kDefaultShared : static_cast<size_t>(limit->second);
  const uint64_t threads = uint64_t{b.x} * b.y * b.z;
  if (g.x == 0 || g.y == 0 || g.z == 0 || threads == 0 || threads > 1024 || g.y > 65535 ||
      g.z > 65535 || g.x > 0x7FFFFFFFu || b.z > 64)
    return note(cudaErrorInvalidConfiguration);
  if (config.dynamicSmemBytes > shared_limit) return note(cudaErrorInvalidValue);
  if (config.stream == nullptr) return note(cudaErrorInvalidValue);  // no hidden default stream
  config.stream->queue.push_back(
      [shape = LaunchShape{g, b, config.dynamicSmemBytes}, body = std::move(body)] {
        Machine& d = machine();
        d.n_launches++;
        if (d.n_launches == d.fail_launch_at) {
          d.report = "a fault that a test asked for";
          return cudaErrorIllegalAddress;
        }
        if (std::string report = run_grid(shape, body); !report.empty()) {
          d.report = std::move(report);
          return cudaErrorLaunchFailure;
        }
        return cudaSuccess;
      });
  return cudaSuccess;
}

cudaError_t set_max_dynamic_shared(const void* kernel, int size_bytes) {
  const std::lock_guard lock(machine().mutex);
  if (size_bytes < 0 || size_bytes > static_cast<int>(kOptInShared))
    return note(cudaErrorInvalidValue);
  machine().max_shared[kernel] = size_bytes;
  return state();
}

const std::string& last_report() { return machine().report; }
void reset_device() {
  machine().sticky = machine().last = cudaSuccess;
  machine().report.clear();
}
void set_driver(cudaError_t error) { machine().driver = error; }
void set_device_count(int count) { machine().n_devices = count; }
void set_compute_capability(int major, int minor) {
  machine().major = major;
  machine().minor = minor;
}
void set_memory_bytes(size_t total) { machine().total = total; }
size_t allocated_bytes(int device) {
  const std::lock_guard lock(machine().mutex);
  return machine().used[device];
}
void fail_allocation(int64_t nth) {
  machine().fail_at = nth == 0 ? 0 : machine().n_allocations + nth;
}
void fail_launch(int64_t nth) {
  machine().fail_launch_at = nth == 0 ? 0 : machine().n_launches + nth;
}
int64_t allocations() { return machine().n_allocations; }
int64_t launches() { return machine().n_launches; }

}  // namespace dasan::cuda_emulator

using namespace dasan::cuda_emulator;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNoKernelImageForDevice:
      return "cudaErrorNoKernelImageForDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
  }
  return "cudaErrorUnknown";
}
const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure && !last_report().empty()) return last_report().c_str();
  return cudaGetErrorName(error);
}
cudaError_t cudaGetLastError() {
  const cudaError_t e = machine().last;
  machine().last = cudaSuccess;
  return e;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = machine().driver == cudaSuccess ? 13000 : 0;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (machine().driver != cudaSuccess) return note(machine().driver);
  *count = machine().n_devices;
  return machine().n_devices == 0 ? note(cudaErrorNoDevice) : cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return state();
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= machine().n_devices) return note(cudaErrorInvalidDevice);
  current_device = device;
  return state();
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  *p = {};
  if (device < 0 || device >= machine().n_devices) return note(cudaErrorInvalidDevice);
  std::strcpy(p->name, "emulated device");
  p->totalGlobalMem = machine().total;
  p->major = machine().major;
  p->minor = machine().minor;
  return state();
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= machine().n_devices) return note(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 4;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 1 << 20;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = machine().major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = machine().minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(kOptInShared);
      break;
  }
  return state();
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = machine().total;
  *free = machine().total - allocated_bytes(current_device);
  return state();
}

cudaError_t cudaMalloc(void** p, size_t size) { return allocate(p, size, current_device); }
cudaError_t cudaFree(void* p) { return release(p, false); }
cudaError_t cudaHostAlloc(void** p, size_t size, unsigned) { return allocate(p, size, -1); }
cudaError_t cudaFreeHost(void* p) { return release(p, true); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  if (const cudaError_t e = state(); e != cudaSuccess) return e;
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(machine().mutex);
  if (stream != nullptr) run(stream->queue);  // the real one finishes what was enqueued, too
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(machine().mutex);
  if (stream->capturing) return note(cudaErrorStreamCaptureUnsupported);
  return run(stream->queue);
}
cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t size, cudaMemcpyKind,
                            cudaStream_t stream) {
  const std::lock_guard lock(machine().mutex);
  if (const cudaError_t e = state(); e != cudaSuccess) return e;
  if (known(src)) {
    stream->queue.push_back([=] {
      std::memmove(dst, src, size);
      return cudaSuccess;
    });
  } else {
    const auto* bytes = static_cast<const std::byte*>(src);
    stream->queue.push_back([dst, copy = std::vector<std::byte>(bytes, bytes + size)] {
      std::memcpy(dst, copy.data(), copy.size());
      return cudaSuccess;
    });
  }
  if (!known(dst) && !stream->capturing) return run(stream->queue);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* dst, int value, size_t size, cudaStream_t stream) {
  const std::lock_guard lock(machine().mutex);
  if (const cudaError_t e = state(); e != cudaSuccess) return e;
  stream->queue.push_back([=] {
    std::memset(dst, value, size);
    return cudaSuccess;
  });
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const std::lock_guard lock(machine().mutex);
  if (stream->capturing) return note(cudaErrorStreamCaptureUnsupported);
  if (const cudaError_t e = run(stream->queue); e != cudaSuccess) return e;
  stream->capturing = true;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard lock(machine().mutex);
  *graph = nullptr;
  if (!stream->capturing) return note(cudaErrorStreamCaptureUnsupported);
  stream->capturing = false;
  *graph = new CUgraph_st{std::move(stream->queue)};
  stream->queue.clear();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->queue};
  return state();
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const std::lock_guard lock(machine().mutex);
  if (const cudaError_t e = state(); e != cudaSuccess) return e;
  stream->queue.insert(stream->queue.end(), exec->queue.begin(), exec->queue.end());
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
