# node 0: node0, serves http://node0:30000
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 python3 -m sglang.launch_server --model-path m --host 0.0.0.0 --port 30000 --tp 2 --dp 2
