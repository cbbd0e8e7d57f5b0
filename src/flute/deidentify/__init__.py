"""De-identification of FHIR resources and DICOM objects, and a check of our own for what should be gone.

Two sides that know nothing of each other. The de-identifier (`pseudonyms`, `dates`, `words`, `profile`, `attributes`,
`dicom`, `pixels`, `classes`, `fhir`) keeps what is listed and drops the rest. The residual check (`needles`,
`residual`) knows what the hospital knows about a patient and looks for it in every byte of the result. `release` lets
out only what passes both; `anonymity` counts how far the records of a table are like one another.
"""
