# InternS1ProForConditionalGeneration: TurboMind does not serve it, using LMDeploy's PyTorch engine
# node 0: node0, serves http://node0:23333
lmdeploy serve api_server /models/Intern-S1 --backend pytorch --tp 8 --server-port 23333 --model-name s1
