"""Sorts pictures with model.onnx: pip install onnxruntime pillow numpy, then python classify.py PICTURE..."""
import json
import sys
from pathlib import Path

import numpy
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")))
labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
for path in sys.argv[1:]:
    # Upright, red, green, blue, 0 to 255, of any size: [height, width, 3]
    image = numpy.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    scores, label = session.run(["scores", "label"], {"image": image})
    scores = {label: float(score) for label, score in zip(labels, scores)}
    print(json.dumps({"image": path, "label": str(label), "scores": scores}))
