"""Folders of DICOM files as a data set of gankit."""

from gankit_dicom.dicom import Dicom

__all__ = ["Dicom"]
