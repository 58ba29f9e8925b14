"""Packaging of keras-zoo; the tools' settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "zoo" / "__init__.py").read_text("utf-8"))

REQUIRED = [
    "tensorflow>=2.20",
    "keras>=3.15",
    "keras-tuner>=1.4.8,<1.5",  # tuning overrides private methods
    "tensorboard",  # imported by keras-tuner on every trial, undeclared there
    "tensorflow-datasets>=4.9.8",
    "importlib_resources",  # imported by tensorflow-datasets, undeclared there
    "safetensors>=0.4.4",
    "huggingface_hub>=1.0",
    "filelock>=3.13",
    "h5py>=3.11",
    "numpy>=1.26",
    "ml_dtypes>=0.4",  # bfloat16 checkpoints
    "pillow>=10.1",
    "typer>=0.15",
    "rich>=13",
    "matplotlib>=3.8",
    "pandas>=2.1",
    "scikit-learn>=1.4",
    "optuna>=5",  # TPE; importance of conditional hyperparameters
    "cloudpickle>=3",  # a user's functions, to the worker processes
]
DEV = [  # pinned: the checks must not change by themselves
    "pytest==9.2.0",
    "pytest-xdist==3.8.0",
    "pytest-cov==7.1.0",
    "ruff==0.17.6",
    "mypy==2.4.1",
    "scikit-image==0.26.0",  # photographs for the tests
    "imbalanced-learn==0.14.2",  # the extra `imbalance`
    "openvino==2026.4.1",  # the extra `deploy`, from here
    "nncf==3.4.0",
    "onnx==1.23.2",
    "tf2onnx==1.17.0",
    "onnxruntime==1.32.0",
    "ai-edge-litert==2.3.0",
    "starlette==1.10.0",  # the extra `serve`, from here
    "uvicorn==0.54.0",
    "python-multipart==0.0.34",
    "prometheus-client==0.26.0",
]
DEPLOY = [
    "openvino>=2025.1",
    "nncf>=2.15",  # 8-bit forms of OpenVINO's models
    "onnx>=1.17",
    "tf2onnx>=1.16",  # imported by Keras to write ONNX
    "onnxruntime>=1.20",
    "ai-edge-litert>=1.2",
]
SERVE = [
    "starlette>=1.0",
    "uvicorn>=0.40",
    "python-multipart>=0.0.20",
    "prometheus-client>=0.21",
]
BENCH = [  # compared with or measured on, never imported by the packages
    "keras-hub",
    "kimm",
    "zeromodels",
    "onnxruntime",  # the LCBench surrogate
    "pyarrow",  # the Adult table
]

setup(
    name="keras-zoo",
    version=VERSION[1] if VERSION else "0",
    description="A model zoo for Keras 3 and TensorFlow: exact architectures, torch-free weights, "
    "hyperparameter search and complete recipes",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["zoo", "zoo.*", "tuning", "tuning.*", "recipes", "recipes.*"]),
    package_data={
        "zoo": ["*.json", "*.pyi", "py.typed", "weights/*.json", "serve/*.html"],
        "tuning": ["py.typed"],
        "recipes": ["py.typed"],
    },
    install_requires=REQUIRED,
    extras_require={
        "imbalance": ["imbalanced-learn>=0.13"],
        "deploy": DEPLOY,
        "serve": SERVE,
        "jax": ["jax"],
        "torch": ["torch"],
        "dev": DEV,
        "bench": BENCH,
    },
    entry_points={"console_scripts": ["keras-zoo=recipes.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
