"""Starting servers on this node, watching them, and ending them whatever happens.

supervisor   starts what `engine.serving` planned for a node, waits for health, watches, ends everything
guard        the process between the supervisor and one server: ends the server's whole tree if either dies
registry     the folder in which nodes register their endpoints
checking     asks registered endpoints whether they work
ending       ends what this host has registered
"""
