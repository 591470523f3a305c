# Qwen3MoeForCausalLM: LMDeploy's TurboMind engine serves it
# node 0: node0, serves http://node0:23333
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 lmdeploy serve api_server /models/Qwen3-235B --backend turbomind --tp 16 --nnodes 2 --node-rank 0 --dist-init-addr node0:29555 --server-port 23333 --hf-overrides '{"a": 1}' --allowed-media-domains x.org y.org
# node 1: node1
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 lmdeploy serve api_server /models/Qwen3-235B --backend turbomind --tp 16 --nnodes 2 --node-rank 1 --dist-init-addr node0:29555 --server-port 23333 --hf-overrides '{"a": 1}' --allowed-media-domains x.org y.org
