"""How each library writes the recipes of `view_recipes`, one module a library, as its own documentation would.

A module that works image by image gives `from_jpeg(recipe)` and `from_pixels(recipe)`, which return a function of one
image that returns its views, float32, (3, H, W). One that works by batches gives `batches(...)`, which returns a call
whose pieces are `(views,)`, each view (B, 3, H, W). Libraries are imported inside the functions.
"""
