"""The run: config, plan, stages, store; the engines, the command line and the sandbox."""
