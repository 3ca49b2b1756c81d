import pytest

from profiles.findings import analyse
from profiles.kernels import KernelClass, classify, readable

# Full names as vLLM 0.25.1 on H200 had them, cut where nothing new comes.
REAL = {
    "nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_TNT": KernelClass.GEMM,
    "void cublasLt::splitKreduce_kernel<(int)32, (int)16, int>(T1)": KernelClass.GEMM,
    "void vllm::cross_device_reduce_1stage<__nv_bfloat16, (int)2>(vllm::RankData *)": (
        KernelClass.COMMUNICATION
    ),
    "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<(unsigned long)4096>)": (
        KernelClass.COMMUNICATION
    ),
    "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<...>>>": (
        KernelClass.ATTENTION
    ),
    "void flash::prepare_varlen_num_blocks_kernel<(int)4, (bool)0>(int)": KernelClass.ATTENTION,
    "triton_poi_fused_mul_silu_slice_1": KernelClass.ELEMENTWISE,
    "triton_red_fused_fused_add_rms_norm_2": KernelClass.ELEMENTWISE,
    "void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16>(const T1 *)": KernelClass.CACHE,
    "_compute_slot_mappings_kernel": KernelClass.CACHE,
    "_gumbel_sample_kernel": KernelClass.SAMPLING,
    "void at::native::reduce_kernel<(int)512, (int)1, at::native::ReduceOp<float, "
    "at::native::ArgMaxOps<float>>>(T3)": KernelClass.SAMPLING,
    "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(...)>": (
        KernelClass.COPY
    ),
    "void at::native::vectorized_elementwise_kernel<(int)4, at::native::FillFunctor<int>>(int)": (
        KernelClass.ELEMENTWISE
    ),
    "memcpy Host-to-Device": KernelClass.COPY,
    "_apply_write_kernel": KernelClass.OTHER,
}
# Names of other kernels that vLLM runs, and of operators of its CPU build.
KNOWN = {
    "void flashinfer::norm::FusedAddRMSNormKernel<8u, __nv_bfloat16>": KernelClass.ELEMENTWISE,
    "void flashinfer::sampling::TopKTopPSamplingFromProbKernel": KernelClass.SAMPLING,
    "void flashinfer::BatchDecodeWithPagedKVCacheKernel": KernelClass.ATTENTION,
    "fused_moe_kernel": KernelClass.GEMM,
    "void vllm::moe::topkGatingSoftmax<8, 64>": KernelClass.ELEMENTWISE,
    "vllm::act_and_mul_kernel": KernelClass.ELEMENTWISE,
    "triton_tem_fused_mm_3": KernelClass.GEMM,
    "_C::onednn_mm": KernelClass.GEMM,
    "aten::addmm": KernelClass.GEMM,
    "aten::copy_": KernelClass.COPY,
    "aten::mul": KernelClass.ELEMENTWISE,
    "_C::cpu_attention_with_kv_cache": KernelClass.ATTENTION,
    "vllm::unified_kv_cache_update": KernelClass.CACHE,
    "_C::fused_gumbel_argmax": KernelClass.SAMPLING,
    "c10d::allreduce_": KernelClass.COMMUNICATION,
}


@pytest.mark.parametrize("name", [*REAL, *KNOWN])
def test_a_kernel_has_the_class_that_its_name_says(name):
    assert classify(name) == {**REAL, **KNOWN}[name]


def test_what_no_pattern_knows_is_one_percent_of_a_real_trace_at_most(nsys_findings, cpu_trace):
    for device in (*nsys_findings.devices, *analyse(cpu_trace).devices):
        other = sum(each.frac for each in device.classes if each.name == KernelClass.OTHER)
        print(f"{device.label}: {other:.2%} of the time is of no class")
        assert other < 0.01


def test_a_wrapper_is_named_with_what_it_runs():
    wrapper = "void cutlass::device_kernel<flash::FlashAttnFwdCombine<cute::tuple<int>>>(T1)"
    assert readable(wrapper) == "device_kernel: FlashAttnFwdCombine"
    fill = "void at::native::vectorized_elementwise_kernel<(int)4, at::native::FillFunctor<int>>()"
    assert readable(fill) == "vectorized_elementwise_kernel: FillFunctor"


def test_a_name_without_a_template_stays_and_a_template_goes():
    assert readable("_gumbel_sample_kernel") == "_gumbel_sample_kernel"
    assert readable("void <unnamed>::some_kernel<int>(T1)") == "some_kernel"
    assert readable("void vllm::reshape_and_cache<a, b>(c)") == "vllm::reshape_and_cache"
