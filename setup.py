from setuptools import find_packages, setup
setup(name="mirage_sim", version="0.1.0", packages=find_packages(include=["mirage_sim*"]))
