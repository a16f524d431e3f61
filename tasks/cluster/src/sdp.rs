//! The semidefinite programs behind the k-means SDP and its likelihood-adjusted form.
