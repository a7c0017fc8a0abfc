"""Networks and data: MNIST, composed images, architectures, training, ONNX export, shipped networks."""
