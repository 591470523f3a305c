# InternS1ProForConditionalGeneration: TurboMind does not serve it, using LMDeploy's PyTorch engine
# node 0: node0, serves http://node0:23333
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0 ray start --head --port=6379 --block &
# when node0:6379 accepts connections:
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 RAY_ADDRESS=node0:6379 lmdeploy serve api_server /scratch/models/Intern-S1-Pro --backend pytorch --tp 16 --server-port 23333 --session-len 65536 --trust-remote-code --reasoning-parser default --tool-call-parser qwen3
# node 1: node1
# when node0:6379 accepts connections:
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0 ray start --address=node0:6379 --block
