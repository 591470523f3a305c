# node 0: node0, serves http://node0:8080
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 llama-server --model /models/q.gguf --host 0.0.0.0 --port 8080 --jinja --alias /models/q.gguf --ctx-size 8192 --offline
