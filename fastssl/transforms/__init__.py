"""What a view is, recipes of views, and lightly's transform classes.

A module that has the name of one of lightly's has all of its names, also those that are defined in another.
"""

from fastssl.transforms import masks
from fastssl.transforms.add_grid_transform import AddGridTransform
from fastssl.transforms.aim_transform import AIMTransform
from fastssl.transforms.amplitude_rescale_transform import AmplitudeRescaleTransform
from fastssl.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from fastssl.transforms.capi_transform import CAPITransform
from fastssl.transforms.densecl_transform import DenseCLTransform
from fastssl.transforms.detcon_transform import DetConSTransform, DetConSViewTransform
from fastssl.transforms.dino_transform import DINOTransform, DINOViewTransform
from fastssl.transforms.fast_siam_transform import FastSiamTransform
from fastssl.transforms.fda_transform import FDATransform, FDAView1Transform, FDAView2Transform
from fastssl.transforms.frequency import FrequencySteps
from fastssl.transforms.gaussian_blur import GaussianBlur
from fastssl.transforms.gaussian_mixture_masks_transform import GaussianMixtureMask
from fastssl.transforms.gpu_views import GPUViews
from fastssl.transforms.grids import crop_grids, warp_masks
from fastssl.transforms.ibot_transform import IBOTTransform, IBOTViewTransform
from fastssl.transforms.ijepa_transform import IJEPATransform
from fastssl.transforms.image_grid_transform import ImageGridTransform
from fastssl.transforms.irfft2d_transform import IRFFT2DTransform
from fastssl.transforms.jigsaw import Jigsaw
from fastssl.transforms.mae_transform import MAETransform
from fastssl.transforms.mmcr_transform import MMCRTransform
from fastssl.transforms.moco_transform import MoCoV1Transform, MoCoV2Transform
from fastssl.transforms.msn_transform import MSNTransform, MSNViewTransform
from fastssl.transforms.multi_crop_transform import MultiCropTranform, MultiCropTransform
from fastssl.transforms.multi_view_transform import MultiViewTransform, ViewTransform
from fastssl.transforms.multi_view_transform_v2 import MultiViewTransformV2
from fastssl.transforms.phase_shift_transform import PhaseShiftTransform
from fastssl.transforms.pirl_transform import PIRLTransform
from fastssl.transforms.plan import Plan
from fastssl.transforms.random_crop_and_flip_with_grid import RandomResizedCropAndFlip
from fastssl.transforms.random_frequency_mask_transform import RandomFrequencyMaskTransform
from fastssl.transforms.rfft2d_transform import RFFT2DTransform
from fastssl.transforms.rotation import RandomRotate, RandomRotateDegrees, random_rotation_transform
from fastssl.transforms.simclr_transform import SimCLRTransform, SimCLRViewTransform
from fastssl.transforms.simsiam_transform import SimSiamTransform, SimSiamViewTransform
from fastssl.transforms.smog_transform import SMoGTransform, SmoGViewTransform
from fastssl.transforms.solarize import RandomSolarization
from fastssl.transforms.swav_transform import SwaVTransform, SwaVViewTransform
from fastssl.transforms.tico_transform import TiCoTransform, TiCoView1Transform, TiCoView2Transform
from fastssl.transforms.torchvision_v2_compatibility import (
    ToTensor,
    functional,
    torchvision_transforms,
    torchvision_transforms_v2_available,
)
from fastssl.transforms.vicreg_transform import VICRegTransform, VICRegViewTransform
from fastssl.transforms.vicregl_transform import VICRegLTransform, VICRegLViewTransform
from fastssl.transforms.view import (
    IMAGENET,
    Blur,
    CenterCrop,
    Crop,
    Erase,
    Flip,
    Grayscale,
    Jitter,
    Normalize,
    Posterize,
    QuarterTurn,
    Recipe,
    Resize,
    Rotate,
    SameCrop,
    Solarize,
    View,
)
from fastssl.transforms.wmse_transform import WMSETransform

__all__ = [
    "AIMTransform",
    "AddGridTransform",
    "AmplitudeRescaleTransform",
    "BYOLTransform",
    "BYOLView1Transform",
    "BYOLView2Transform",
    "Blur",
    "CAPITransform",
    "CenterCrop",
    "Crop",
    "DINOTransform",
    "DINOViewTransform",
    "DenseCLTransform",
    "DetConSTransform",
    "DetConSViewTransform",
    "Erase",
    "FDATransform",
    "FDAView1Transform",
    "FDAView2Transform",
    "FastSiamTransform",
    "Flip",
    "FrequencySteps",
    "GPUViews",
    "GaussianBlur",
    "GaussianMixtureMask",
    "Grayscale",
    "IBOTTransform",
    "IBOTViewTransform",
    "IJEPATransform",
    "IMAGENET",
    "IRFFT2DTransform",
    "ImageGridTransform",
    "Jigsaw",
    "Jitter",
    "MAETransform",
    "MMCRTransform",
    "MSNTransform",
    "MSNViewTransform",
    "MoCoV1Transform",
    "MoCoV2Transform",
    "MultiCropTranform",
    "MultiCropTransform",
    "MultiViewTransform",
    "MultiViewTransformV2",
    "Normalize",
    "PIRLTransform",
    "PhaseShiftTransform",
    "Plan",
    "Posterize",
    "QuarterTurn",
    "RFFT2DTransform",
    "RandomFrequencyMaskTransform",
    "RandomResizedCropAndFlip",
    "RandomRotate",
    "RandomRotateDegrees",
    "RandomSolarization",
    "Recipe",
    "Resize",
    "Rotate",
    "SMoGTransform",
    "SameCrop",
    "SimCLRTransform",
    "SimCLRViewTransform",
    "SimSiamTransform",
    "SimSiamViewTransform",
    "SmoGViewTransform",
    "Solarize",
    "SwaVTransform",
    "SwaVViewTransform",
    "TiCoTransform",
    "TiCoView1Transform",
    "TiCoView2Transform",
    "ToTensor",
    "VICRegLTransform",
    "VICRegLViewTransform",
    "VICRegTransform",
    "VICRegViewTransform",
    "View",
    "ViewTransform",
    "WMSETransform",
    "crop_grids",
    "functional",
    "masks",
    "random_rotation_transform",
    "torchvision_transforms",
    "torchvision_transforms_v2_available",
    "warp_masks",
]
