#include "kernels/cuda/stream.h"

#include <algorithm>
#include <bit>
#include <string>

#include "kernels/core/status.h"
#include "kernels/cuda/attention_work.h"
#include "kernels/cuda/matmul.h"

namespace dasan::kernels::cuda {
namespace {

constexpr size_t kAlign = 256;
constexpr size_t kMaxUploads = 64;  // distinct host arrays of one step

size_t aligned(size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }
// In a recorded step a copy has the size of its bucket, whatever it carries.
size_t bucket(size_t n) { return std::bit_ceil(std::max(n, kAlign)); }

// Tokens, slots and rows of a step, its sines and cosines (full and windowed layers may have their
// own), and the attention plan.
size_t input_bytes(const StreamLimits& l) {
  const auto rows = static_cast<size_t>(l.max_rows), seqs = static_cast<size_t>(l.max_seqs);
  const size_t pages = seqs * (static_cast<size_t>(l.max_context) / kPageTokens + 1);
  const size_t work = seqs * (static_cast<size_t>(CudaAttentionPlan::splits_of(l.max_context)) + 3);
  constexpr size_t kRopeTables = 2;
  const size_t rotations =
      kRopeTables * 2 * rows * static_cast<size_t>(l.max_head_dim) / 2 * sizeof(float);
  // Twice, for copies whose sizes are rounded up to a power of two.
  return 2 * aligned(rows * (2 * sizeof(int32_t) + sizeof(int64_t)) + rotations +
                     pages * sizeof(int32_t) + work * sizeof(SeqWork)) +
         kMaxUploads * kAlign;
}

// A sequence with one split needs no partial result.
size_t partial_bytes(const StreamLimits& l) {
  const int32_t splits = CudaAttentionPlan::splits_of(l.max_context);
  if (splits == 1) return 0;
  return static_cast<size_t>(l.max_seqs) * static_cast<size_t>(splits) *
         static_cast<size_t>(l.max_heads) * (static_cast<size_t>(l.max_head_dim) + 2) *
         sizeof(float);
}

}  // namespace

CudaStream::CudaStream(const DeviceInfo& device, const StreamLimits& limits,
                       const MemoryCount& count)
    : device_(device),
      limits_(limits),
      stream_(device.ordinal),
      staging_(device.ordinal, input_bytes(limits)),
      inputs_(device.ordinal, input_bytes(limits), count),
      matmul_scratch_(device.ordinal, matmul_scratch_bytes(limits), count),
      partials_(device.ordinal, partial_bytes(limits), count),
      graphs_(device.ordinal) {
  uploaded_.reserve(kMaxUploads);
  check(matmul_clear_scratch(*this), "clearing scratch memory");
}

CudaStream::~CudaStream() {
  static_cast<void>(cudaStreamSynchronize(get()));  // its failure was, or is, some step's
}

size_t CudaStream::scratch_bytes_of(const StreamLimits& limits) {
  return input_bytes(limits) + matmul_scratch_bytes(limits) + partial_bytes(limits);
}

const void* CudaStream::upload_bytes(const void* host, size_t size) {
  if (size == 0) return inputs_.data();
  for (const Uploaded& u : uploaded_)
    if (u.host == host && u.size == size) return inputs_.data() + u.offset;
  if (size > staging_.size())
    throw Error(Status::kInternal, "a step brings " + std::to_string(size) +
                                       " bytes from the host, expected at most " +
                                       std::to_string(staging_.size()));
  const size_t room = mode_ == Mode::kDirect ? size : bucket(size);
  if (used_ + room > staging_.size() || uploaded_.size() == kMaxUploads) {
    if (mode_ != Mode::kDirect)
      throw Error(Status::kInternal, "a recorded step brings more than " +
                                         std::to_string(staging_.size()) + " bytes from the host");
    synchronize();  // beyond what the limits foresee: correct, though it waits
  }
  const size_t at = used_;
  std::memcpy(staging_.data() + at, host, size);
  if (mode_ != Mode::kReplay)
    check(cudaMemcpyAsync(inputs_.data() + at, staging_.data() + at, room, cudaMemcpyHostToDevice,
                          get()),
          "the copy of a step's inputs");
  uploaded_.push_back({host, size, at});
  used_ = aligned(at + room);
  return inputs_.data() + at;
}

void CudaStream::forget_uploads() noexcept {
  uploaded_.clear();
  used_ = 0;
}

void CudaStream::begin_step(const StepShape& shape) {
  if (!limits_.graphs) return;
  graphs_.abandon_capture(get());
  // The staging memory may still be read by what was enqueued before.
  if (used_ != 0) synchronize();
  shape_ = shape;
  if (graphs_.find(shape) != nullptr) {
    mode_ = Mode::kReplay;
    return;
  }
  graphs_.begin_capture(get());
  mode_ = Mode::kCapture;
}

void CudaStream::end_step() {
  if (mode_ == Mode::kDirect) return;
  const Mode mode = mode_;
  mode_ = Mode::kDirect;
  const StepGraph& graph = mode == Mode::kReplay
                               ? *graphs_.find(shape_)
                               : graphs_.end_capture(get(), shape_, used_, uploaded_.size());
  if (graph.staged_bytes != used_ || graph.n_uploads != uploaded_.size())
    throw Error(Status::kInternal,
                "a replayed step brings " + std::to_string(used_) + " bytes in " +
                    std::to_string(uploaded_.size()) + " arrays, its recording brought " +
                    std::to_string(graph.staged_bytes) + " in " + std::to_string(graph.n_uploads));
  check(cudaGraphLaunch(graph.exec, get()), "the launch of a step");
}

void CudaStream::synchronize() {
  check(cudaStreamSynchronize(get()), "the step");
  forget_uploads();
}

}  // namespace dasan::kernels::cuda
