"""What holds for operators on CUDA, by the names of ATen operators or of Python functions."""

# ATen operators that launch nothing: views, allocations, queries.
NO_LAUNCH = frozenset(
    "_pin_memory _reshape_alias _unsafe_view alias as_strided chunk detach detach_ diagonal empty "
    "empty_like empty_strided expand is_pinned lift_fresh _local_scalar_dense new_empty "
    "new_empty_strided permute resize_ select set_data slice split split_with_sizes squeeze "
    "squeeze_ t transpose transpose_ unbind unfold unsqueeze unsqueeze_ view view_as_real".split()
)

# ATen operators whose result has a size that the device decides, or that hand it to the host.
WAITS = frozenset(
    "_local_scalar_dense equal masked_select nonzero unique_dim _unique2 unique_consecutive "
    "bincount".split()
)

# ATen operators that tensor cores compute, and which of their arguments are the factors.
FACTORS = {
    "addmm": (1, 3),
    "baddbmm": (1, 3),
    "bmm": (0, 2),
    "convolution": (0, 2),
    "convolution_backward": (0, 3),
    "convolution_overrideable": (0, 2),
    "mm": (0, 2),
}

# Python functions that CUDA's autocast runs in the lower precision, in float32, and in the widest
# dtype of their arguments (torch's documentation of autocast, "CUDA Ops").
LOWER_PRECISION = frozenset(
    "__matmul__ __rmatmul__ addbmm addmm addmv addr baddbmm bmm chain_matmul conv1d conv2d conv3d "
    "conv_transpose1d conv_transpose2d conv_transpose3d linear matmul mm mv prelu".split()
)
FLOAT32 = frozenset(
    "__pow__ __rdiv__ __rpow__ __rtruediv__ acos asin cosh cosine_embedding_loss cdist "
    "cosine_similarity cross_entropy cumprod cumsum dist erfinv exp expm1 group_norm "
    "hinge_embedding_loss kl_div l1_loss layer_norm log log10 log1p log2 log_softmax "
    "margin_ranking_loss mse_loss multilabel_margin_loss multi_margin_loss nll_loss norm "
    "normalize pdist poisson_nll_loss pow prod reciprocal renorm rsqrt sinh smooth_l1_loss "
    "soft_margin_loss softmax softmin softplus sum tan triplet_margin_loss "
    "binary_cross_entropy_with_logits".split()
)
WIDEST = frozenset(
    "addcdiv addcmul atan2 bilinear cross dot grid_sample index_put scatter_add tensordot".split()
)
REFUSED_IN_AUTOCAST = frozenset(["binary_cross_entropy"])

# ATen operators that raise on CUDA under torch.use_deterministic_algorithms(True) (torch's
# documentation of that function), for arguments of which the function here is true.
NONDETERMINISTIC = {
    "_adaptive_avg_pool2d_backward": lambda args, kwargs: True,
    "adaptive_max_pool2d_backward": lambda args, kwargs: True,
    "avg_pool3d_backward": lambda args, kwargs: True,
    "bincount": lambda args, kwargs: len(args) > 1 or kwargs.get("weights") is not None,
    "cumsum": lambda args, kwargs: args[0].is_floating_point(),
    "grid_sampler_2d_backward": lambda args, kwargs: True,
    "histc": lambda args, kwargs: True,
    "kthvalue": lambda args, kwargs: True,
    "median": lambda args, kwargs: len(args) > 1,
    "nll_loss2d_forward": lambda args, kwargs: True,
    "put_": lambda args, kwargs: not kwargs.get("accumulate"),
    "reflection_pad2d_backward": lambda args, kwargs: True,
    "replication_pad2d_backward": lambda args, kwargs: True,
    "scatter_reduce": lambda args, kwargs: args[4] in ("sum", "mean"),
    "scatter_reduce_": lambda args, kwargs: args[4] in ("sum", "mean"),
    "upsample_bicubic2d_backward": lambda args, kwargs: True,
    "upsample_bilinear2d_backward": lambda args, kwargs: True,
}
