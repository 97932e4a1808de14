#include "tests/support/cuda_emulator/block.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace dasan::cuda_emulator {
namespace {

constexpr size_t kPage = 4096;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

// ---- fibers ------------------------------------------------------------------------------------

#if defined(__x86_64__)
// Saves the callee-saved registers of the System V ABI on the stack and swaps stacks. ucontext
// would make two system calls for it.
extern "C" void dasan_fiber_switch(void** save, void* load);
asm(R"(
.text
.globl dasan_fiber_switch
.hidden dasan_fiber_switch
.type dasan_fiber_switch,@function
dasan_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size dasan_fiber_switch,.-dasan_fiber_switch
)");

struct Context {
  void* sp = nullptr;
  void prepare(std::byte* stack, size_t size, void (*entry)()) {
    auto** top = reinterpret_cast<void**>(stack + size);
    *--top = nullptr;  // a return address that nobody uses, for the alignment at entry
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    sp = top;
  }
};
void swap(Context& from, Context& to) { dasan_fiber_switch(&from.sp, to.sp); }
#else
struct Context {
  ucontext_t u{};
  void prepare(std::byte* stack, size_t size, void (*entry)()) {
    getcontext(&u);
    u.uc_stack.ss_sp = stack;
    u.uc_stack.ss_size = size;
    makecontext(&u, entry, 0);
  }
};
void swap(Context& from, Context& to) { swapcontext(&from.u, &to.u); }
#endif

// Memory whose end touches a page that nobody may touch.
class Guarded {
 public:
  Guarded() = default;
  ~Guarded() { reset(); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  // The bytes [data, data + size): `size` rounded up to 16.
  void resize(size_t size) {
    size = (size + 15) / 16 * 16;
    const size_t pages = (size + kPage - 1) / kPage;
    if (pages > pages_) {
      reset();
      void* p = mmap(nullptr, (pages + 2) * kPage, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) std::abort();
      base_ = static_cast<std::byte*>(p);
      pages_ = pages;
      if (mprotect(base_ + kPage, pages * kPage, PROT_READ | PROT_WRITE) != 0) std::abort();
    }
    size_ = size;
  }
  std::byte* data() const { return base_ == nullptr ? nullptr : end() - size_; }
  std::byte* end() const { return base_ + (pages_ + 1) * kPage; }
  size_t size() const { return size_; }
  // In one of the two pages around it.
  bool guards(const void* p) const {
    const auto* at = static_cast<const std::byte*>(p);
    return base_ != nullptr &&
           ((at >= base_ && at < base_ + kPage) || (at >= end() && at < end() + kPage));
  }

 private:
  void reset() {
    if (base_ != nullptr) munmap(base_, (pages_ + 2) * kPage);
    base_ = nullptr;
    pages_ = 0;
  }
  std::byte* base_ = nullptr;
  size_t pages_ = 0, size_ = 0;
};

struct AsyncCopy {
  void* to;
  std::vector<std::byte> bytes;
};

enum class State : uint8_t { kReady, kBarrier, kCollective, kDone, kDead };

struct Thread {
  Context context;
  Guarded stack;
  dim3 index;
  State state = State::kDone;
  Site site{};
  int barrier_id = 0;
  std::vector<std::vector<AsyncCopy>> groups;  // committed, oldest first
  std::vector<AsyncCopy> open_group;
  void* fake_stack = nullptr;
};

struct Meeting {  // of lanes in a collective
  uint32_t mask = 0, arrived = 0;
  Combine combine = nullptr;
  void* operands[32] = {};
  bool open() const { return arrived != 0; }
};

// The device: the emulator runs one grid at a time, on the calling thread.
struct Device {
  std::vector<std::unique_ptr<Thread>> threads;
  size_t n_threads = 0;
  std::vector<std::vector<Meeting>> meetings;  // per warp
  Context scheduler;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_bytes = 0;
  size_t current = 0;
  Guarded dynamic_shared;
  std::map<const void*, size_t> static_shared;
  const std::function<void()>* kernel = nullptr;
  std::string report;
  uint64_t serial = 0, launches = 0;

  Thread& running() { return *threads[current]; }
};

Device& device() {
  static Device d;
  return d;
}

std::string name(const dim3& d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}
std::string name(const Site& s) {
  const char* slash = std::strrchr(s.file, '/');
  return std::string(s.what) + " at " + (slash == nullptr ? s.file : slash + 1) + ":" +
         std::to_string(s.line);
}

void report_fault(const std::string& what) {
  device().report = "block " + name(blockIdx) + " thread " + name(threadIdx) + ": " + what;
}

void to_scheduler() {
  Device& d = device();
  Thread& t = d.running();
#if defined(__SANITIZE_ADDRESS__)
  const bool ends = t.state == State::kDone || t.state == State::kDead;
  __sanitizer_start_switch_fiber(ends ? nullptr : &t.fake_stack, d.scheduler_stack,
                                 d.scheduler_stack_bytes);
#endif
  swap(t.context, d.scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(t.fake_stack, nullptr, nullptr);
#endif
}

// Takes a faulted thread out of its kernel, past the strings of the report.
struct Faulted {};

void fiber_main() {
  Device& d = device();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &d.scheduler_stack, &d.scheduler_stack_bytes);
#endif
  Thread& t = d.running();
  try {
    (*d.kernel)();
  } catch (const Faulted&) {
    t.state = State::kDead;
    to_scheduler();
    std::abort();  // a dead fiber is never resumed
  }
  const bool in_flight = std::any_of(t.groups.begin(), t.groups.end(),
                                     [](const auto& group) { return !group.empty(); });
  if (!t.open_group.empty() || in_flight)
    report_fault("the thread ends with cp.async copies that nobody waited for");
  t.state = State::kDone;
  to_scheduler();
  std::abort();  // a finished fiber is never resumed
}

void resume(size_t i) {
  Device& d = device();
  Thread& t = *d.threads[i];
  d.current = i;
  threadIdx = t.index;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&d.scheduler_fake_stack, t.stack.data(), t.stack.size());
#endif
  swap(d.scheduler, t.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(d.scheduler_fake_stack, nullptr, nullptr);
#endif
}

// ---- a stray access becomes a report ----------------------------------------------------------

struct sigaction previous_segv;

// In place of the access, where nothing can be thrown.
void stray_access() {
  Device& d = device();
  report_fault("memory access beyond the dynamic shared memory");
  d.running().state = State::kDead;
  to_scheduler();
  std::abort();
}

void on_segv(int sig, siginfo_t* info, void* raw) {
  Device& d = device();
#if defined(__x86_64__)
  if (d.kernel != nullptr && d.dynamic_shared.guards(info->si_addr)) {
    // Continue in stray_access() on the thread's own stack, below its red zone, aligned as after a
    // call.
    auto* u = static_cast<ucontext_t*>(raw);
    auto& rsp = u->uc_mcontext.gregs[REG_RSP];
    rsp = ((rsp - 256) & ~15LL) - 8;
    u->uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(&stray_access);
    return;
  }
#endif
  if ((previous_segv.sa_flags & SA_SIGINFO) != 0 && previous_segv.sa_sigaction != nullptr) {
    previous_segv.sa_sigaction(sig, info, raw);
    return;
  }
  signal(SIGSEGV, SIG_DFL);  // the access repeats and ends the process
}

// For the time of a launch: a test framework installs its own for every test.
class HandlerScope {
 public:
  HandlerScope() {
    static std::vector<std::byte> stack(64 << 10);
    stack_t now{};
    if (sigaltstack(nullptr, &now) == 0 && (now.ss_flags & SS_DISABLE) != 0) {
      stack_t alternate{};
      alternate.ss_sp = stack.data();
      alternate.ss_size = stack.size();
      sigaltstack(&alternate, nullptr);
    }
    struct sigaction action {};
    action.sa_sigaction = on_segv;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &previous_segv);
  }
  ~HandlerScope() { sigaction(SIGSEGV, &previous_segv, nullptr); }
  HandlerScope(const HandlerScope&) = delete;
  HandlerScope& operator=(const HandlerScope&) = delete;
};

// ---- scheduling --------------------------------------------------------------------------------

// Who waits where, for the report of a deadlock.
std::string waiting() {
  Device& d = device();
  std::map<std::string, std::string> groups;
  for (size_t i = 0; i < d.n_threads; i++) {
    const Thread& t = *d.threads[i];
    const std::string where = t.state == State::kDone ? "finished" : "at " + name(t.site);
    std::string& list = groups[where];
    if (list.size() < 60) list += (list.empty() ? "" : " ") + std::to_string(i);
  }
  std::string out;
  for (const auto& [where, list] : groups)
    out += (out.empty() ? "" : "; ") + ("threads " + list) + " " + where;
  return out;
}

bool run_block(bool backwards) {
  Device& d = device();
  d.serial++;
  std::memset(d.dynamic_shared.data(), 0xFF, d.dynamic_shared.size());
  for (auto& warp : d.meetings)
    for (Meeting& m : warp) m = {};
  for (size_t i = 0; i < d.n_threads; i++) {
    Thread& t = *d.threads[i];
    t.stack.resize(kStackBytes);
#if defined(__SANITIZE_ADDRESS__)
    // A fiber that was given up in the middle left the marks of its frames.
    if (t.state != State::kDone) __asan_unpoison_memory_region(t.stack.data(), t.stack.size());
#endif
    t.context.prepare(t.stack.data(), t.stack.size(), fiber_main);
    const auto n = static_cast<unsigned>(i);
    t.index = {n % blockDim.x, n / blockDim.x % blockDim.y, n / blockDim.x / blockDim.y};
    t.state = State::kReady;
    t.groups.clear();
    t.open_group.clear();
  }
  for (size_t left = d.n_threads; left > 0;) {
    bool moved = false;
    for (size_t k = 0; k < d.n_threads; k++) {
      const size_t i = backwards ? d.n_threads - 1 - k : k;
      if (d.threads[i]->state != State::kReady) continue;
      moved = true;
      resume(i);
      if (!d.report.empty()) return false;
      if (d.threads[i]->state == State::kDone) left--;
    }
    if (!moved) {
      d.report = "block " + name(blockIdx) + ": divergent barrier or collective: " + waiting();
      return false;
    }
  }
  return true;
}

}  // namespace

std::string run_grid(const LaunchShape& shape, const std::function<void()>& kernel) {
  Device& d = device();
  if (d.kernel != nullptr) return "a kernel was launched from a kernel";
  const HandlerScope handler;
  blockDim = shape.block;
  gridDim = shape.grid;
  d.n_threads = size_t{shape.block.x} * shape.block.y * shape.block.z;
  while (d.threads.size() < d.n_threads) d.threads.push_back(std::make_unique<Thread>());
  d.meetings.assign((d.n_threads + 31) / 32, std::vector<Meeting>(32));
  d.dynamic_shared.resize(std::max<size_t>(shape.shared_bytes, 16));
  d.kernel = &kernel;
  d.report.clear();
  const bool backwards = d.launches++ % 2 == 1;
  const size_t n_blocks = size_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  for (size_t k = 0; k < n_blocks; k++) {
    const size_t i = backwards ? n_blocks - 1 - k : k;
    blockIdx = {static_cast<unsigned>(i % gridDim.x),
                static_cast<unsigned>(i / gridDim.x % gridDim.y),
                static_cast<unsigned>(i / gridDim.x / gridDim.y)};
    if (!run_block(backwards)) break;
  }
  d.kernel = nullptr;
  return d.report;
}

int lane() noexcept { return static_cast<int>(device().current % 32); }
uint64_t block_serial() noexcept { return device().serial; }
void* shared_begin() noexcept { return device().dynamic_shared.data(); }

void fault(const std::string& what) {
  report_fault(what);
  throw Faulted{};
}

void barrier(int id, int count, const Site& site) {
  Device& d = device();
  if (count <= 0 || count > static_cast<int>((d.n_threads + 31) / 32 * 32))
    fault("barrier " + std::to_string(id) + " for " + std::to_string(count) + " threads");
  Thread& self = d.running();
  self.state = State::kBarrier;
  self.barrier_id = id;
  self.site = site;
  int arrived = 0;
  for (size_t i = 0; i < d.n_threads; i++) {
    const Thread& t = *d.threads[i];
    if (t.state != State::kBarrier || t.barrier_id != id) continue;
    arrived++;
    if (t.site.line != site.line ||
        (t.site.file != site.file && std::strcmp(t.site.file, site.file) != 0))
      fault("divergent barrier: " + name(site) + " while thread " + std::to_string(i) +
            " waits in " + name(t.site));
  }
  if (arrived < std::min(count, static_cast<int>(d.n_threads))) {
    to_scheduler();
    return;
  }
  for (size_t i = 0; i < d.n_threads; i++) {
    Thread& t = *d.threads[i];
    if (t.state == State::kBarrier && t.barrier_id == id) t.state = State::kReady;
  }
}

void collective(uint32_t mask, void* operand, Combine combine, const Site& site) {
  Device& d = device();
  const size_t warp = d.current / 32;
  const uint32_t self = 1u << lane();
  const size_t in_warp = std::min<size_t>(32, d.n_threads - warp * 32);
  // Lanes that the block does not have may be named in a full mask.
  const uint32_t existing = in_warp == 32 ? ~0u : (1u << in_warp) - 1;
  if ((mask & self) == 0) fault(name(site) + ": the lane is not in its own mask");
  mask &= existing;
  Meeting* meeting = nullptr;
  for (Meeting& m : d.meetings[warp])
    if (m.open() && m.mask == mask) meeting = &m;
  if (meeting == nullptr) {
    for (Meeting& m : d.meetings[warp]) {
      if (m.open() && (m.mask & mask) != 0)
        fault(name(site) + ": lanes of one warp wait in collectives of different masks");
      if (!m.open() && meeting == nullptr) meeting = &m;
    }
    if (meeting == nullptr) fault(name(site) + ": too many collectives at once");
    meeting->mask = mask;
    meeting->combine = combine;
  }
  if (meeting->combine != combine)
    fault(name(site) + ": lanes of one warp are in different collectives");
  meeting->arrived |= self;
  meeting->operands[lane()] = operand;
  Thread& t = d.running();
  if (meeting->arrived != mask) {
    t.state = State::kCollective;
    t.site = site;
    to_scheduler();
    return;
  }
  combine(meeting->operands, mask);
  *meeting = {};
  for (size_t l = 0; l < 32; l++)
    if ((mask >> l & 1) != 0) d.threads[warp * 32 + l]->state = State::kReady;
}

void async_copy(void* shared, const void* global, size_t copied_bytes, size_t total_bytes) {
  check_shared(shared, total_bytes, total_bytes, "cp.async");
  if (reinterpret_cast<uintptr_t>(global) % total_bytes != 0 && copied_bytes != 0)
    fault("cp.async: the source is not aligned to " + std::to_string(total_bytes) + " bytes");
  AsyncCopy copy{shared, std::vector<std::byte>(total_bytes)};
  if (copied_bytes != 0) std::memcpy(copy.bytes.data(), global, copied_bytes);
  device().running().open_group.push_back(std::move(copy));
  std::memset(shared, 0xFF, total_bytes);  // in flight: neither the old bytes nor the new ones
}

void async_commit() {
  Thread& t = device().running();
  t.groups.push_back(std::move(t.open_group));
  t.open_group.clear();
}

void async_wait(int groups_in_flight) {
  Thread& t = device().running();
  while (static_cast<int>(t.groups.size()) > groups_in_flight) {
    for (const AsyncCopy& copy : t.groups.front())
      std::memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
    t.groups.erase(t.groups.begin());
  }
}

void register_shared(const void* begin, size_t size_bytes) {
  device().static_shared[begin] = size_bytes;
}

void check_shared(const void* p, size_t size_bytes, size_t align, const char* what) {
  Device& d = device();
  const auto* at = static_cast<const std::byte*>(p);
  if (reinterpret_cast<uintptr_t>(p) % align != 0)
    fault(std::string(what) + ": address not aligned to " + std::to_string(align) + " bytes");
  if (at >= d.dynamic_shared.data() && at + size_bytes <= d.dynamic_shared.end()) return;
  const auto after = d.static_shared.upper_bound(p);
  if (after != d.static_shared.begin()) {
    const auto& [begin, size] = *std::prev(after);
    if (at + size_bytes <= static_cast<const std::byte*>(begin) + size) return;
  }
  fault(std::string(what) + ": " + std::to_string(size_bytes) +
        " bytes outside the block's shared memory");
}

}  // namespace dasan::cuda_emulator
