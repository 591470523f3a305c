# node 0: node0, serves http://node0:23333
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0 ray start --head --port=6379 --block &
# when node0:6379 accepts connections:
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_ENGINE_READY_TIMEOUT_S=10000 RAY_ADDRESS=node0:6379 vllm serve /scratch/models/Intern-S1-Pro --host 0.0.0.0 --port 23333 --tensor-parallel-size 16 --enable-expert-parallel --max-model-len 65536 --trust-remote-code --reasoning-parser deepseek_r1 --enable-auto-tool-choice --tool-call-parser hermes --distributed-executor-backend ray
# node 1: node1
# when node0:6379 accepts connections:
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0 ray start --address=node0:6379 --block
