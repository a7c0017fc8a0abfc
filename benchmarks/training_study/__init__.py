"""The study of training methods: which networks' labels can be proved to stay, and at what price."""
