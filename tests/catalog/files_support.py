"""Small raster files, and products of Sentinel-2, as their makers lay them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine

UTM = Affine(10, 0, 600000, 0, -10, 5300040)
PRODUCT = "S2A_MSIL2A_20220627T112121_N0400_R037_T29UNU_20220627T170112"
_PRODUCT_XML = """<?xml version="1.0"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
  <n1:General_Info><Product_Info>
    <PRODUCT_START_TIME>2022-06-27T11:21:21.024Z</PRODUCT_START_TIME>
    <PRODUCT_URI>{product}.SAFE</PRODUCT_URI>
    <PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL><PRODUCT_TYPE>S2MSI2A</PRODUCT_TYPE>
    <PROCESSING_BASELINE>04.00</PROCESSING_BASELINE>
    <Datatake datatakeIdentifier="GS2A"><SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME><DATATAKE_TYPE>INS-NOBS</DATATAKE_TYPE></Datatake>
  </Product_Info>
  <Product_Image_Characteristics>
    <QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>
    <BOA_ADD_OFFSET_VALUES_LIST>{offsets}</BOA_ADD_OFFSET_VALUES_LIST>
  </Product_Image_Characteristics></n1:General_Info>
  <n1:Quality_Indicators_Info><Cloud_Coverage_Assessment>12.5</Cloud_Coverage_Assessment></n1:Quality_Indicators_Info>
</n1:Level-2A_User_Product>
"""
_GRANULE_XML = """<?xml version="1.0"?>
<n1:Level-2A_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd">
  <n1:General_Info>
    <TILE_ID>S2A_OPER_MSI_L2A_TL_ATOS_20220627T170112_A036637_T29UNU_N04.00</TILE_ID>
    <SENSING_TIME>2022-06-27T11:23:47.123456Z</SENSING_TIME>
  </n1:General_Info>
  <n1:Geometric_Info>
    <Tile_Geocoding><HORIZONTAL_CS_CODE>EPSG:32629</HORIZONTAL_CS_CODE>
      <Size resolution="10"><NROWS>10980</NROWS><NCOLS>10980</NCOLS></Size>
      <Geoposition resolution="10"><ULX>499980</ULX><ULY>5900040</ULY><XDIM>10</XDIM><YDIM>-10</YDIM></Geoposition>
    </Tile_Geocoding>
    <Tile_Angles><Mean_Sun_Angle><ZENITH_ANGLE unit="deg">31.5</ZENITH_ANGLE><AZIMUTH_ANGLE unit="deg">151.25</AZIMUTH_ANGLE></Mean_Sun_Angle></Tile_Angles>
  </n1:Geometric_Info>
  <n1:Quality_Indicators_Info><Image_Content_QI><CLOUDY_PIXEL_PERCENTAGE>12.25</CLOUDY_PIXEL_PERCENTAGE></Image_Content_QI></n1:Quality_Indicators_Info>
</n1:Level-2A_Tile_ID>
"""


def write(
    path: Path,
    values: np.ndarray | None = None,
    *,
    crs: str | None = "EPSG:32633",
    transform: Affine | None = UTM,
    descriptions: tuple[str, ...] = (),
    tags: dict[str, str] | None = None,
    **profile: object,
) -> Path:
    """Write ``(y, x)`` or ``(band, y, x)``, by default uint16 of 40 x 50 pixels."""
    data = np.arange(2000, dtype="uint16").reshape(40, 50) if values is None else values
    data = data if data.ndim == 3 else data[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = data.shape
    driver = "JP2OpenJPEG" if path.suffix == ".jp2" else "GTiff"
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    with rasterio.open(
        path, "w", driver=driver, count=count, height=height, width=width, dtype=data.dtype, crs=crs, transform=transform, **lossless, **profile,
    ) as dst:  # fmt: skip
        dst.write(data)
        dst.update_tags(**(tags or {}))
        for i, text in enumerate(descriptions):
            dst.set_band_description(i + 1, text)
    return path


def write_product(folder: Path, size: int = 1830, bands: dict[str, int] | None = None) -> Path:
    """A product of Level-2A in the layout of ESA's, its pixels ``60 m``, ``120 m``, ``360 m`` wide instead of 10, 20 and 60 m."""
    root = folder / f"{PRODUCT}.SAFE"
    granule = root / "GRANULE" / "L2A_T29UNU_A036637_20220627T112347"
    for name, metres in (bands or {"B02": 10, "B04": 10, "B05": 20, "SCL": 20, "TCI": 10}).items():
        for coarser in [m for m in (10, 20, 60) if m >= metres]:
            n = size * 10 // coarser
            kind, count = ("uint8", 3 if name == "TCI" else 1) if name in ("SCL", "TCI") else ("uint16", 1)
            y, x = np.mgrid[0:n, 0:n]
            data = np.broadcast_to(
                ((x + 2 * y) % 200 + (1100 if kind == "uint16" else 0)).astype(kind), (count, n, n)
            )
            grid = Affine(109800 / n, 0, 499980, 0, -109800 / n, 5900040)
            place = granule / "IMG_DATA" / f"R{coarser}m" / f"T29UNU_20220627T112121_{name}_{coarser}m.jp2"
            write(place, np.ascontiguousarray(data), crs="EPSG:32629", transform=grid)
    write(granule / "QI_DATA" / "MSK_CLDPRB_20m.jp2", np.zeros((64, 64), "uint8"), crs="EPSG:32629")
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{i}">-1000</BOA_ADD_OFFSET>' for i in range(13))
    (root / "MTD_MSIL2A.xml").write_text(_PRODUCT_XML.format(product=PRODUCT, offsets=offsets))
    (granule / "MTD_TL.xml").write_text(_GRANULE_XML)
    return root


def write_netcdf(
    path: Path, values: np.ndarray, times: tuple[int, ...], units: str, transform: Affine
) -> Path:
    """A variable ``t2m (time, lat, lon)`` of float32, as CF has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    plain = path.with_suffix(".tif")
    with rasterio.open(plain, "w", driver="GTiff", count=count, height=height, width=width, dtype="float32", crs="EPSG:4326", transform=transform) as dst:  # fmt: skip
        dst.write(values.astype("float32"))
        dst.update_tags(**{
            "NETCDF_DIM_EXTRA": "{time}", "NETCDF_DIM_time_DEF": f"{{{count},6}}", "NETCDF_DIM_time_VALUES": "{" + ",".join(map(str, times)) + "}",
            "time#units": units,
        })  # fmt: skip
        for i, value in enumerate(times):
            dst.update_tags(i + 1, NETCDF_VARNAME="t2m", NETCDF_DIM_time=str(value), units="K")
    rasterio.shutil.copy(plain, path, driver="netCDF")
    plain.unlink()
    return path
