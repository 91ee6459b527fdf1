"""Models that ship with the compiler."""

from sonew_compiled.models._equinox import from_equinox as from_equinox
from sonew_compiled.models._flax import from_flax as from_flax
from sonew_compiled.models._flax import from_nnx as from_nnx
from sonew_compiled.models._haiku import from_haiku as from_haiku
from sonew_compiled.models._load import load_model as load_model
from sonew_compiled.models._load import user_code as user_code
from sonew_compiled.models._model import Model as Model
from sonew_compiled.models.autoencoder import autoencoder as autoencoder
from sonew_compiled.models.autoencoder import autoencoder_small as autoencoder_small
from sonew_compiled.models.classifier import classifier as classifier
