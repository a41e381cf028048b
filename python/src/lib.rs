//! The native core of the Python package
