"""Estimators as graphs of ONNX. These modules need `onnx`, and are imported when a graph is made."""
