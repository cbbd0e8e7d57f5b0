"""Where images come from: a PACS by DIMSE or DICOMweb, a folder; one port for all."""
