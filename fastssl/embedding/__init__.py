"""Embeddings, and what is done with them."""

from fastssl.embedding.embed import Embeddings, embed, load_backbone
from fastssl.embedding.knn import knn_accuracy, knn_predict, neighbours
from fastssl.embedding.report import write_report

__all__ = ["Embeddings", "embed", "knn_accuracy", "knn_predict", "load_backbone", "neighbours", "write_report"]
