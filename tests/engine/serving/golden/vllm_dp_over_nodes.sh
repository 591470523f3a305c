# node 0: node0, serves http://node0:23333
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_ENGINE_READY_TIMEOUT_S=3600 vllm serve /scratch/models/Intern-S1-Pro --host 0.0.0.0 --port 23333 --tensor-parallel-size 1 --enable-expert-parallel --max-model-len 65536 --trust-remote-code --data-parallel-size 16 --data-parallel-size-local 8 --data-parallel-address node0 --data-parallel-rpc-port 13345
# node 1: node1
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_ENGINE_READY_TIMEOUT_S=3600 vllm serve /scratch/models/Intern-S1-Pro --host 0.0.0.0 --port 23333 --tensor-parallel-size 1 --enable-expert-parallel --max-model-len 65536 --trust-remote-code --data-parallel-size 16 --data-parallel-size-local 8 --data-parallel-address node0 --data-parallel-rpc-port 13345 --data-parallel-start-rank 8 --headless
