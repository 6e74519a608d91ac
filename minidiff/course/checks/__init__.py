"""Exercise checks that tell a student what went wrong: `check.l01_one_step(my_function)`."""

from minidiff.course.checks.exercise import Bug, Exercise, NotYet
from minidiff.course.checks.l01 import l01_add_noise, l01_one_step, l01_to_model
from minidiff.course.checks.l01_schedules import l01_alphas, l01_cosine_time
from minidiff.course.checks.l02 import l02_loss, l02_x0_from_eps, l02_x0_from_v
from minidiff.course.checks.l02_averages import l02_best_guess, l02_ema
from minidiff.course.checks.l03 import l03_ancestral_step, l03_ddim_step, l03_heun_step
from minidiff.course.checks.l03_walk import l03_order, l03_walk
from minidiff.course.checks.l04 import l04_accuracy, l04_features
from minidiff.course.checks.l04_clouds import l04_frechet, l04_precision
from minidiff.course.checks.l04_memory import l04_memorisation
from minidiff.course.checks.l05 import l05_group_norm, l05_time_embedding
from minidiff.course.checks.l05_attention import l05_attention
from minidiff.course.checks.l05_blocks import l05_res_block
from minidiff.course.checks.l05_unet import l05_unet
from minidiff.course.checks.l06 import l06_days, l06_mirror, l06_records
from minidiff.course.checks.l06_scale import l06_album, l06_larger
from minidiff.course.checks.l07 import l07_gradient, l07_log_p
from minidiff.course.checks.l07_guided import l07_belief, l07_move
from minidiff.course.checks.l08 import l08_contrastive, l08_matrix
from minidiff.course.checks.l08_merges import l08_merge
from minidiff.course.checks.l08_towers import l08_read, l08_tokens
from minidiff.course.checks.l09 import l09_drop, l09_guided
from minidiff.course.checks.l09_maps import l09_maps
from minidiff.course.checks.l09_remedies import l09_away, l09_rescale
from minidiff.course.checks.l10 import l10_picture
from minidiff.course.checks.l10_loss import l10_loss
from minidiff.course.checks.l10_padding import l10_smaller
from minidiff.course.checks.l10_scaling import l10_scaling
from minidiff.course.checks.l10_slerp import l10_slerp
from minidiff.course.checks.l11 import l11_start
from minidiff.course.checks.l11_clean import l11_clean
from minidiff.course.checks.l11_keep import l11_keep
from minidiff.course.checks.l11_report import l11_report
from minidiff.course.checks.l12 import l12_memory, l12_operations
from minidiff.course.checks.l12_precision import l12_step
from minidiff.course.checks.l12_processes import l12_gradient, l12_visits

__all__ = [
    "Bug",
    "Exercise",
    "NotYet",
    "l01_add_noise",
    "l01_alphas",
    "l01_cosine_time",
    "l01_one_step",
    "l01_to_model",
    "l02_best_guess",
    "l02_ema",
    "l02_loss",
    "l02_x0_from_eps",
    "l02_x0_from_v",
    "l03_ancestral_step",
    "l03_ddim_step",
    "l03_heun_step",
    "l03_order",
    "l03_walk",
    "l04_accuracy",
    "l04_features",
    "l04_frechet",
    "l04_memorisation",
    "l04_precision",
    "l05_attention",
    "l05_group_norm",
    "l05_res_block",
    "l05_time_embedding",
    "l05_unet",
    "l06_album",
    "l06_days",
    "l06_larger",
    "l06_mirror",
    "l06_records",
    "l07_belief",
    "l07_gradient",
    "l07_log_p",
    "l07_move",
    "l08_contrastive",
    "l08_matrix",
    "l08_merge",
    "l08_read",
    "l08_tokens",
    "l09_away",
    "l09_drop",
    "l09_guided",
    "l09_maps",
    "l09_rescale",
    "l10_loss",
    "l10_picture",
    "l10_scaling",
    "l10_slerp",
    "l10_smaller",
    "l11_clean",
    "l11_keep",
    "l11_report",
    "l11_start",
    "l12_gradient",
    "l12_memory",
    "l12_operations",
    "l12_step",
    "l12_visits",
]
