"""What to start so that a model is served: from a description to exact command lines, without starting anything.

`spec` is the description, `backends` knows which engine of LMDeploy serves which architecture, `commands` builds the
command lines of every node, and `other_servers` those of vLLM, SGLang, llama.cpp and transformers.
"""
