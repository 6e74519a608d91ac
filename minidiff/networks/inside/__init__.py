"""Looking into a network: what each block computes, where attention goes, and what breaks without a part."""
