# node 0: node0, serves http://node0:23333
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 python3 -m sglang.launch_server --model-path /scratch/models/Intern-S1-Pro --host 0.0.0.0 --port 23333 --tp 16 --ep 16 --context-length 65536 --trust-remote-code --reasoning-parser qwen3 --tool-call-parser qwen --dist-init-addr node0:29555 --nnodes 2 --node-rank 0 --mem-fraction-static 0.85 --attention-backend fa3
# node 1: node1
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 python3 -m sglang.launch_server --model-path /scratch/models/Intern-S1-Pro --host 0.0.0.0 --port 23333 --tp 16 --ep 16 --context-length 65536 --trust-remote-code --reasoning-parser qwen3 --tool-call-parser qwen --dist-init-addr node0:29555 --nnodes 2 --node-rank 1 --mem-fraction-static 0.85 --attention-backend fa3
