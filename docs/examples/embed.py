"""Train, evaluate and predict inside a Python program, without JAX: python embed.py BUNDLE DATA.npz"""

import sys

import numpy as np

from sonew_compiled import runtime

bundle = runtime.open_bundle(sys.argv[1])
device = runtime.open_device()
arrays = np.load(sys.argv[2])
data = runtime.Dataset.from_arrays({"image": arrays["train_image"]}, {"image": arrays["test_image"]})

# A whole run, with checkpoints and metrics in a folder, that keeps its best checkpoint.
settings = runtime.TrainSettings(epochs=4, learning_rate=1e-2, keep_best=True)
result = runtime.train(
    bundle, data, settings, device, output="run", on_epoch=lambda epoch: print(epoch.epoch, epoch.test_loss)
)

# Step by step, from the best weights of that run.
program = runtime.Program.load(bundle, device)
start = runtime.load_weights(result.best_checkpoint or result.checkpoint, bundle.manifest)
state = runtime.TrainingState.initial(program, seed=0, parameters=start)
batches = runtime.bind(data.train, bundle.manifest.batch)
for step in range(20):
    state.step(batches.training_batch(seed=0, step=step), 5e-3)

test_loss = runtime.evaluate(program, state.buffers, data.test)
predictions = runtime.predict(program, state.buffers, {"image": arrays["test_image"][:3]})
runtime.save_parameters("weights.safetensors", state.parameters())
print(f"test loss {test_loss:.6f} after {step + 1} more steps, predictions {predictions.shape}")
