"""Estimators as graphs of ONNX: modules that need `onnx`, imported when a graph is made."""
