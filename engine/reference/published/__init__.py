"""Files that a saved checkpoint carries so that transformers and LMDeploy can load it.

They are copied into the checkpoint's folder and run from there, by `trust_remote_code`; nothing of s1batch imports the
two modules. Hence they import nothing of s1batch either.
"""
