#include "engine/exec/graph.h"

namespace dasan {

Graph build_graph(const ModelSpec& spec) {
  Graph graph;
  graph.push_back({StepKind::kEmbed});
  for (int32_t i = 0; i < spec.n_layers; i++) {
    const ResidualKind residual = spec.layers[static_cast<size_t>(i)].residual;
    const bool norm_before = residual != ResidualKind::kPost;
    const bool norm_after = residual != ResidualKind::kPre;
    const auto branch_input = [&](NormWeight weight) {
      if (!norm_before) return Slot::kStream;
      graph.push_back({StepKind::kNorm, i, Slot::kStream, Slot::kBranch, weight, false});
      return Slot::kBranch;
    };
    const auto branch_output = [&](StepKind kind, NormWeight weight, Slot source = Slot::kStream) {
      graph.push_back({kind, i, source, norm_after ? Slot::kBranch : Slot::kStream,
                       NormWeight::kOutput, !norm_after});
      if (norm_after)
        graph.push_back({StepKind::kNorm, i, Slot::kBranch, Slot::kStream, weight, true});
    };
    const Slot attention_input = branch_input(NormWeight::kAttn);
    graph.push_back({StepKind::kQkv, i, attention_input});
    graph.push_back({StepKind::kRopeAppend, i});
    graph.push_back({StepKind::kAttention, i});
    branch_output(StepKind::kAttentionOut, NormWeight::kPostAttn);
    const Slot mlp_input = branch_input(NormWeight::kFfn);
    if (spec.layers[static_cast<size_t>(i)].n_experts > 0) {
      graph.push_back(
          {StepKind::kRoute, i, mlp_input, Slot::kStream, NormWeight::kOutput, !norm_after});
      branch_output(StepKind::kExperts, NormWeight::kPostFfn, mlp_input);
    } else {
      graph.push_back({StepKind::kGateUp, i, mlp_input});
      graph.push_back({StepKind::kGatedAct, i});
      branch_output(StepKind::kMlpOut, NormWeight::kPostFfn);
    }
  }
  graph.push_back({StepKind::kGather});
  graph.push_back({StepKind::kNorm, -1, Slot::kHidden, Slot::kHidden, NormWeight::kOutput, false});
  graph.push_back({StepKind::kHead});
  return graph;
}

}  // namespace dasan
