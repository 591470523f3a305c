# Qwen3ForCausalLM: LMDeploy's TurboMind engine serves it
# node 0: node0, serves http://node0:23333
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 lmdeploy serve api_server /models/Qwen3-8B --backend turbomind --tp 1 --server-port 23333
