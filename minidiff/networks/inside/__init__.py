"""Looking inside a network: what each block computes, where attention looks, and what breaks without a part."""
