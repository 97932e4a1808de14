"""dasan on a Ray cluster; needs `pip install dasan[ray]`, and nothing else of dasan needs Ray.

    dasan.ray.data.run(...)       one answer per row of a file, by several workers
    dasan.ray.serve.build(...)    the HTTP server as a Ray Serve application with replicas
"""
