"""Numbers that describe images: radiomics features, a vendor's biomarkers."""
