from preprocessing import cuda

cuda.load()
