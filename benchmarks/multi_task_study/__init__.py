"""Multi-task adversarial training, measured (docs/multi-task-study.md)."""
