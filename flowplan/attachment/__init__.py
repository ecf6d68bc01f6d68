"""From dense object flow to tool poses: rigid attachment, patch moments, screw motions."""

from flowplan.attachment.attach import (
    Attachment,
    AttachmentOptions,
    attach,
    attach_loosely,
    fit_screw,
)
from flowplan.attachment.moments import Moments

__all__ = ["Attachment", "AttachmentOptions", "Moments", "attach", "attach_loosely", "fit_screw"]
