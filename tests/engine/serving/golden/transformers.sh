# node 0: node0, serves http://node0:8000
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 transformers serve /models/q --host 0.0.0.0 --port 8000 --trust-remote-code
