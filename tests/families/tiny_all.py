"""All families' tiny pipelines."""

import tiny_dit
import tiny_edm
import tiny_flux
import tiny_pixart_sigma
import tiny_sana
import tiny_sd3
import tiny_stable_diffusion
import tiny_z_image

TINY = {
    **tiny_stable_diffusion.TINY,
    **tiny_dit.TINY,
    **tiny_edm.TINY,
    **tiny_pixart_sigma.TINY,
    **tiny_flux.TINY,
    **tiny_sd3.TINY,
    **tiny_sana.TINY,
    **tiny_z_image.TINY,
}
