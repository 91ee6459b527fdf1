"""Models that ship with the compiler."""

from sonew_compiled.models._model import Model as Model
from sonew_compiled.models.autoencoder import autoencoder as autoencoder
from sonew_compiled.models.classifier import classifier as classifier
