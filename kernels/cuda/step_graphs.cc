#include "kernels/cuda/step_graphs.h"

namespace dasan::kernels::cuda {

StepGraphs::~StepGraphs() {
  for (const StepGraph& g : graphs_) cudaGraphExecDestroy(g.exec);
}

const StepGraph* StepGraphs::find(const StepShape& shape) const noexcept {
  for (const StepGraph& g : graphs_)
    if (g.shape == shape) return &g;
  return nullptr;
}

void StepGraphs::begin_capture(cudaStream_t stream) {
  // Thread-local: other engines' threads allocate and copy meanwhile.
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), ordinal_,
        "the recording of a step");
  capturing_ = true;
}

const StepGraph& StepGraphs::end_capture(cudaStream_t stream, const StepShape& shape,
                                         size_t staged_bytes, size_t n_uploads) {
  cudaGraph_t graph = nullptr;
  capturing_ = false;
  check(cudaStreamEndCapture(stream, &graph), ordinal_, "the recording of a step");
  cudaGraphExec_t exec = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  check(made, ordinal_, "the graph of a step");
  if (graphs_.size() == kMaxGraphs) {
    cudaGraphExecDestroy(graphs_.front().exec);
    graphs_.erase(graphs_.begin());
  }
  graphs_.push_back({shape, exec, staged_bytes, n_uploads});
  return graphs_.back();
}

void StepGraphs::abandon_capture(cudaStream_t stream) noexcept {
  if (!capturing_) return;
  capturing_ = false;
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(stream, &graph) == cudaSuccess && graph != nullptr)
    cudaGraphDestroy(graph);
  cudaGetLastError();
}

}  // namespace dasan::kernels::cuda
