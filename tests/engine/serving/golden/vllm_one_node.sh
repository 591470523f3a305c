# node 0: node0, serves http://node0:23333
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_ENGINE_READY_TIMEOUT_S=3600 vllm serve m --host 0.0.0.0 --port 23333 --tensor-parallel-size 2 --served-model-name q --data-parallel-size 2
